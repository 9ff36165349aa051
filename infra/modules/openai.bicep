// The model: Azure OpenAI, which takes no keys.

@description('The account\'s name, part of its address.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('The model\'s name and version, and its deployment\'s sku and capacity.')
param model object
@description('The identity that asks it.')
param principalId string

// Cognitive Services OpenAI User
var userRole = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: { name: 'S0' }
  properties: {
    // An address of its own: Entra ID signs in to no other.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: 'Enabled'
  }
}

resource chat 'Microsoft.CognitiveServices/accounts/deployments@2025-06-01' = {
  parent: account
  name: 'chat'
  sku: { name: model.sku, capacity: model.capacity }
  properties: {
    model: { format: 'OpenAI', name: model.name, version: model.version }
  }
}

resource asks 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, principalId, userRole)
  scope: account
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', userRole)
  }
}

output endpoint string = account.properties.endpoint
output deployment string = chat.name
