// What pushes answers to browsers: Azure SignalR Service in serverless mode, which takes no keys.

@description('The service\'s name, part of its address.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('Its size.')
param sku string
@description('The identity that pushes: whom roles are given to.')
param principalId string
@description('The identity that pushes: as whom to sign in.')
param clientId string

// SignalR REST API Owner: sends, groups, and tokens for clients.
var ownerRole = 'fd53cd77-2268-407a-8f46-7e7863d0f521'

resource signalr 'Microsoft.SignalRService/signalR@2024-03-01' = {
  name: name
  location: location
  tags: tags
  kind: 'SignalR'
  sku: { name: sku, capacity: 1 }
  properties: {
    // Pages of any origin: what lets a client in is a token that our service gives it.
    cors: { allowedOrigins: ['*'] }
    disableLocalAuth: true
    features: [{ flag: 'ServiceMode', value: 'Serverless' }]
  }
}

resource pushes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(signalr.id, principalId, ownerRole)
  scope: signalr
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', ownerRole)
  }
}

output connectionString string = 'Endpoint=https://${signalr.properties.hostName};AuthType=azure.msi;ClientId=${clientId};Version=1.0;'
