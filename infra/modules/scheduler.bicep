// Where the runs and the agents' memory are: the Durable Task Scheduler. It knows no keys.

@description('The scheduler\'s name.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('How it is paid for.')
param sku string
@description('The identity that works with the task hub.')
param principalId string

// Durable Task Data Contributor
var contributorRole = '0ad04412-c4d5-4796-b79c-f76d14c8d402'

resource scheduler 'Microsoft.DurableTask/schedulers@2025-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    // An empty list would let nobody in. The role below decides who may do something.
    ipAllowlist: ['0.0.0.0/0']
    sku: sku == 'Dedicated' ? { name: sku, capacity: 1 } : { name: sku }
  }
}

resource hub 'Microsoft.DurableTask/schedulers/taskHubs@2025-11-01' = {
  parent: scheduler
  name: 'default'
  properties: {}
}

resource works 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, principalId, contributorRole)
  scope: hub
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', contributorRole)
  }
}

output endpoint string = scheduler.properties.endpoint
output taskHub string = hub.name
